"""Chat client for benchmark and judge questions to a model on a server, one message per question."""

from __future__ import annotations

from typing import Any

from .. import chat_client


class ChatClient(chat_client.ChatClient):
    """A chat client that sends one question at a time; arguments as in [`longvale.chat_client.ChatClient`]."""

    def ask(self, content: str | list[dict[str, Any]], max_tokens: int) -> str:
        """Send one message and return the answer without the model's reasoning.

        Args:
            content: text, or content parts in the format of the OpenAI API.
            max_tokens: maximum number of tokens, including reasoning.

        Raises:
            NoAnswer: if the model wrote no answer.
            ServerError: if the server cannot be reached, returns an error, or returns an invalid reply.
        """
        return self([{"role": "user", "content": content}], max_tokens=max_tokens)
