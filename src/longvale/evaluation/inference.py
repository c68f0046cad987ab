"""A model behind a server of the OpenAI kind, or of Hugging Face's inference providers."""

from __future__ import annotations

from typing import Any


class ChatClient:
    """Asks a model, greedily.

    Args:
        model: its name, as the server knows it, or a Hub id.
        base_url: of the server, such as "http://127.0.0.1:8000/v1"; None asks Hugging Face's inference providers.
        timeout_s: of a request, in seconds.
    """

    def __init__(self, model: str, base_url: str | None = None, *, timeout_s: float = 600.0) -> None:
        from huggingface_hub import InferenceClient

        self.model, self.base_url = model, base_url
        self._client = InferenceClient(base_url=base_url, timeout=timeout_s)

    def ask(self, content: str | list[dict[str, Any]], max_tokens: int) -> str:
        """The reply to one message.

        Args:
            content: text, or parts in the form of the OpenAI API.
            max_tokens: of the reply.

        Raises:
            ConnectionError: if the server cannot be reached or refuses.
        """
        from huggingface_hub.errors import HfHubHTTPError

        messages = [{"role": "user", "content": content}]
        # Of whichever HTTP library huggingface_hub uses: what it raises when nothing was answered.
        unreachable = next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")
        try:
            output = self._client.chat_completion(messages, model=self.model, max_tokens=max_tokens, temperature=0)
        except (HfHubHTTPError, unreachable, TimeoutError) as error:
            where = self.base_url or "Hugging Face's inference providers"
            reason = " ".join(str(error).split())[:300]
            raise ConnectionError(f"{where}: {self.model} does not answer ({reason})") from error
        return (output.choices[0].message.content or "").strip()
