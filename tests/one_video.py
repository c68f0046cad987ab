"""Questions about one video by the prefix cache, in the order of the questions."""

from longvale.evaluation.generation.prefix_cache import Ask, VideoPrefixes


def ask_prefixes(prefixes, questions, max_new_tokens, batch_size=16):
    answers = [""] * len(questions)
    asked = [Ask(0, question) for question in questions]
    for places, texts in prefixes.answer(asked, max_new_tokens, batch_size):
        for place, text in zip(places, texts, strict=True):
            answers[place] = text
    return answers


def answer_about_video(model, processor, video, questions, max_new_tokens, batch_size=16):
    return ask_prefixes(VideoPrefixes(model, processor, [video]), questions, max_new_tokens, batch_size)
