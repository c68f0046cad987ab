"""vLLM's server by a stand-in, which decodes the embeddings and lets the exported language model continue them."""

import base64
import io
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import pytest
import torch
from chat_server import send
from test_serve import QUESTIONS, by_path, message
from transformers import AutoModelForCausalLM, AutoTokenizer

from longvale.chat_client import ChatClient
from longvale.checkpoints.language_model import save_language_model
from longvale.serving.server import serve
from longvale.serving.vllm_engine import VLLMServer


class StandIn:
    """`/v1/completions` of `vllm serve FOLDER --enable-prompt-embeds`, for greedy decoding."""

    def __init__(self, folder):
        model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
        lock, self.asked = threading.Lock(), []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append((self.path, body))
                content = base64.b64decode(body["prompt_embeds"])
                embeds = torch.load(io.BytesIO(content), weights_only=True)
                with lock, torch.inference_mode():
                    mask = torch.ones(1, len(embeds), dtype=torch.long)
                    options = {"max_new_tokens": body["max_tokens"], "do_sample": False, "attention_mask": mask}
                    (tokens,) = model.generate(inputs_embeds=embeds[None], **options)
                text = tokenizer.decode(tokens, skip_special_tokens=True)
                choice = {"index": 0, "text": text, "finish_reason": "length"}
                usage = {"completion_tokens": len(tokens)}
                send(self, 200, json.dumps({"object": "text_completion", "choices": [choice], "usage": usage}).encode())

            def log_message(self, *arguments):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"


@pytest.fixture(scope="module")
def vllm(pair, tmp_path_factory):
    return StandIn(save_language_model(*pair, tmp_path_factory.mktemp("vllm") / "model"))


def ask(url, video, question, tokens):
    body = message(by_path(video))
    body["messages"][0]["content"][1]["text"] = question
    reply = httpx2.post(f"{url}/chat/completions", json={**body, "max_tokens": tokens}, timeout=None)
    return reply.json()


def test_answers_are_those_of_the_model_in_one_process(pair, folder, url, vllm):
    videos = sorted(folder.glob("*.mp4"))[:2]
    with serve(pair, name="tiny", port=0, engine="vllm", engine_url=vllm.url, media_folders=[folder]) as ours:
        for video in videos:
            for question in QUESTIONS:
                found, expected = (ask(server, video, question, 12) for server in (ours, url))
                assert found["choices"][0]["message"] == expected["choices"][0]["message"]
                assert found["usage"] == expected["usage"]
    path, body = vllm.asked[0]
    assert path == "/v1/completions" and body["temperature"] == 0 and body["model"] == "longvale"


def test_the_towers_alone_make_the_same_embeddings(pair, folder, tmp_path, vllm):
    """The process in front of vLLM loads no layer of the language model."""
    for part in pair:
        part.save_pretrained(tmp_path / "model")
    video = sorted(folder.glob("*.mp4"))[0]
    embeds = []
    for model in (pair, str(tmp_path / "model")):
        with serve(model, name="tiny", port=0, engine="vllm", engine_url=vllm.url, media_folders=[folder]) as ours:
            ask(ours, video, QUESTIONS[0], 2)
        embeds.append(vllm.asked[-1][1]["prompt_embeds"])
    first, second = (torch.load(io.BytesIO(base64.b64decode(text)), weights_only=True) for text in embeds)
    assert torch.allclose(first, second, atol=1e-5) and first.shape[1] == pair[0].config.text_config.hidden_size
    from longvale.serving.vllm_engine import load_towers

    assert not load_towers(str(tmp_path / "model"), "cpu")[0].language_model.layers


def test_a_server_that_is_gone(pair, folder, monkeypatch):
    monkeypatch.setitem(ChatClient.__init__.__kwdefaults__, "retries", 0)
    video = sorted(folder.glob("*.mp4"))[0]
    url = "http://127.0.0.1:9/v1"
    with serve(pair, name="tiny", port=0, engine="vllm", engine_url=url, media_folders=[folder]) as ours:
        error = ask(ours, video, "When?", 2)["error"]["message"]
    assert error.startswith("vLLM: longvale at http://127.0.0.1:9/v1: ConnectError")


def test_vllm_that_is_missing_or_fails(tmp_path, tiny_model, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="vLLM is not installed here: install it, or start"):
        VLLMServer(str(tiny_model))
    fake = tmp_path / "vllm"
    fake.write_text(
        f"#!{sys.executable}\nimport sys\nopen({str(tmp_path / 'argv')!r}, 'w').write(' '.join(sys.argv))\n"
    )
    fake.chmod(0o755)
    with pytest.raises(ValueError, match="vllm ended with exit code 0"):
        VLLMServer(str(tiny_model), tmp_path / "model")
    assert "--enable-prompt-embeds --served-model-name longvale" in (tmp_path / "argv").read_text()
    assert (tmp_path / "model" / "config.json").is_file()


def test_options_of_engines(pair):
    with pytest.raises(ValueError, match="unknown engine 'tgi'"), serve(pair, engine="tgi"):
        pass
    wrong = pytest.raises(ValueError, match="--engine-url http://x/v1 is for --engine vllm")
    with wrong, serve(pair, engine_url="http://x/v1"):
        pass
