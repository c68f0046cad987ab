"""Questions about one video, in the order of the questions."""

import torch

from longvale.evaluation.generation.model import decode_answers, prepare_question
from longvale.evaluation.generation.video_qa import VideoQA, VideoQuestion


def answer_plainly(model, processor, question, features, max_new_tokens):
    """Answer by one call of `generate` with the whole prompt: what every other way of asking is compared with."""
    inputs = prepare_question(model, processor, [question], [features])
    with torch.inference_mode():
        output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    return decode_answers(processor, output[:, inputs["input_ids"].shape[1] :])[0]


def ask_in_order(qa, questions, max_new_tokens, batch_size=16):
    answers = [""] * len(questions)
    asked = [VideoQuestion(0, question) for question in questions]
    for places, texts in qa.answer(asked, max_new_tokens, batch_size):
        for place, text in zip(places, texts, strict=True):
            answers[place] = text
    return answers


def answer_about_video(model, processor, video, questions, max_new_tokens, batch_size=16):
    return ask_in_order(VideoQA(model, processor, [video]), questions, max_new_tokens, batch_size)
