"""What chat templates of any origin may take, and that those within the limits are rendered as before."""

import pytest
from transformers import AutoTokenizer

from longvale.checkpoints import chat_templates
from longvale.checkpoints.chat_templates import is_plain, render_template
from longvale.checkpoints.loading import load_checkpoint
from longvale.evaluation.generation.model import build_prompt
from longvale.models.modeling_longvale import LongVALEForConditionalGeneration
from longvale.models.prompts import CHAT_TEMPLATE

CHAT = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "A bell."}]
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}{% generation %}"
    "{{ message.content | trim }}{% endgeneration %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
#: Needs a process of its own, and does no harm: macros and variables that grow by what is read.
COMPLEX = (
    "{% macro words(m) %}{{ m.role ~ ': ' ~ m.content }}{% endmacro %}{% set ns = namespace(text='') %}"
    "{% for m in messages %}{% set ns.text = ns.text ~ words(m) ~ eos %}{% endfor %}{{ ns.text }}"
)
GROWING = "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = EXPRESSION %}{% endfor %}{{ ns.x }}"
HOSTILE = {
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}"
    "{% endfor %}{% endfor %}",
    "multiplied text": "{{ messages[0].content * 10**11 }}",
    "constant that is folded while compiling": "{{ 'a' * 10**11 }}",
    "doubled text": GROWING.replace("EXPRESSION", "ns.x ~ ns.x"),
    "doubled list": GROWING.replace("EXPRESSION", "[ns.x, ns.x]"),
    "great power": "{{ 10 ** (10 ** 9) }}",
    "filter": "{{ messages[0].content | center(10**11) }}",
    "format": "{{ '%099999999999d' % 1 }}",
    "macros that call twice": "{% macro m0() %}x{% endmacro %}"
    + "".join(f"{{% macro m{i}() %}}{{{{ m{i - 1}() }}}}{{{{ m{i - 1}() }}}}{{% endmacro %}}" for i in range(1, 50))
    + "{{ m49() }}",
}


@pytest.fixture(autouse=True, scope="module")
def small():
    """Limits that are soon reached; the process that rendered before is ended."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chat_templates, "RENDER_S", 1.0)
        patch.setattr(chat_templates, "RENDER_BYTES", 256 << 20)
        chat_templates._worker.stop()
        yield
        chat_templates._worker.stop()


#: Each is stopped by the limit of time, like the nested loops.
LATE = ("doubled list", "great power", "macros that call twice")


@pytest.mark.parametrize(
    "template",
    [pytest.param(HOSTILE[name], id=name, marks=[pytest.mark.slow] * (name in LATE)) for name in HOSTILE],
)
def test_what_takes_too_much_is_refused_in_a_line(template):
    assert not is_plain(template)
    with pytest.raises(ValueError, match=r"^the chat template of the checkpoint cannot be rendered: .+") as error:
        render_template([CHAT], chat_template=template)
    assert "\n" not in str(error.value)
    assert render_template([CHAT], chat_template=COMPLEX, eos="</s>")[0] == ["user: What?</s>assistant: A bell.</s>"]


@pytest.mark.parametrize("template", [CHATML, CHAT_TEMPLATE, COMPLEX], ids=["ChatML", "Vicuna", "complex"])
def test_others_are_rendered_as_transformers_does(template):
    from transformers.utils.chat_template_utils import render_jinja_template

    options = {"chat_template": template, "add_generation_prompt": True, "eos_token": "</s>", "eos": "</s>"}
    options["return_assistant_tokens_mask"] = "generation" in template
    expected = render_jinja_template([CHAT, CHAT[:1]], **options)
    assert tuple(map(list, render_template([CHAT, CHAT[:1]], **options))) == tuple(map(list, expected))


@pytest.mark.parametrize(
    ("template", "plain"),
    [
        (CHATML, True),
        (COMPLEX, False),
        ("{{ messages[0].content.replace('a', 'b') }}", False),
        ("{% for a in messages %}{% for b in a %}{% for c in b %}x{% endfor %}{% endfor %}{% endfor %}", False),
        ("{% for a in range(9) %}x{% endfor %}", False),
        ("{% set x = messages[1:] %}{% for m in x %}{{ m.content }}{% endfor %}", True),
        ("{% set x = x + x %}", False),
        ("{% set x = x.items() %}", False),
        ("{{ x | indent(4) }}", False),
        ("{% for", False),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", False),
        ("x" * 100_000, False),
    ],
)
def test_which_forms_are_bounded(template, plain):
    assert is_plain(template) is plain


def test_a_checkpoint_with_a_hostile_template_is_refused_when_it_is_asked(tiny_model):
    _, processor = load_checkpoint(tiny_model, LongVALEForConditionalGeneration, device="cpu")
    assert "When?" in build_prompt(processor, "<video>\nWhen?")
    processor.chat_template = HOSTILE["nested loops"]
    with pytest.raises(ValueError, match="cannot be rendered: it takes more than 1 s"):
        build_prompt(processor, "<video>\nWhen?")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = HOSTILE["multiplied text"]
    with pytest.raises(ValueError, match="cannot be rendered: it takes more than 256 MB"):
        tokenizer.apply_chat_template(CHAT, tokenize=False)
    tokenizer.chat_template = "{% macro m() %}{% endmacro %}{{ raise_exception('no system role') }}"
    with pytest.raises(ValueError, match="no system role"):
        tokenizer.apply_chat_template(CHAT, tokenize=False)


def test_pictures_in_messages_stay_here(monkeypatch):
    template = "{% macro m(c) %}{{ c.type }}{% endmacro %}{% for c in messages[0].content %}{{ m(c) }}{% endfor %}"
    picture = object()
    chat = [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": "?"}]}]
    assert render_template([chat], chat_template=template)[0] == ["imagetext"]
    assert chat[0]["content"][0]["image"] is picture
