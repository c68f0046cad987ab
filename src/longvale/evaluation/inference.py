"""Questions of benchmarks and judges to a model behind a server, one message each."""

from __future__ import annotations

from typing import Any

from .. import chat_client


class ChatClient(chat_client.ChatClient):
    """Asks one question at a time; arguments as of [`longvale.chat_client.ChatClient`]."""

    def ask(self, content: str | list[dict[str, Any]], max_tokens: int) -> str:
        """Answer one message, without the model's reasoning.

        Args:
            content: text, or parts in the form of the OpenAI API.
            max_tokens: longest answer, reasoning included.

        Raises:
            NoAnswer: if the model wrote no answer.
            ServerError: if the server cannot be reached, refuses, or replies something else than an answer.
        """
        return self([{"role": "user", "content": content}], max_tokens=max_tokens)
