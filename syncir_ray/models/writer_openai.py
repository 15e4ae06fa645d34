"""The query writer behind an OpenAI-compatible server: a shared vLLM server, or the paper's own GPT-3.5."""

import asyncio
import os
import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import openai
from openai.types.chat import ChatCompletion

from syncir_ray.errors import UserError
from syncir_ray.models.answer import Answer, Failure
from syncir_ray.schemas import DETAIL

BACKOFF = 5.0  # seconds before the second try, doubled from try to try
LONGEST_BACKOFF = 30.0  # seconds
LONGEST_RETRY_AFTER = 120.0  # seconds; a server that wants more is not asked again
TIMEOUT = 120.0  # seconds a server may be silent: an answer waits for the others of its batch
NO_KEY = "none"
BUSY = {408, 409, 425, 429}  # besides 5xx, what another try may mend


class OpenAIWriter:
    """Asks one server for chat completions, `parallel` at a time, temperature 0, with a seed."""

    def __init__(
        self,
        url: str,
        model: str,
        max_tokens: int,
        tries: int,
        parallel: int,
        seed: int = 0,
        backoff: float = BACKOFF,
        timeout: float = TIMEOUT,
    ) -> None:
        """Keep the settings; the key is read when asking and is never kept.

        Args:
            url: base of the API, up to and with `/v1`.
            model: the name that the server knows.
            max_tokens: tokens of the longest answer.
            tries: how often a prompt is asked while the server is away or busy. The waits between are 5, 10,
                20, 30, 30 … seconds and up to a quarter more, so 4 tries outlast a server that is away for
                35 s, 5 for 65 s, and each further one 30 s more. A longer Retry-After is waited for.
            parallel: requests under way; one that waits for its next try counts.
            seed: passed to the server, which may or may not heed it.
            backoff: seconds of the first wait.
            timeout: seconds until a silent server counts as away.
        """
        self.url, self.model, self.max_tokens = url, model, max_tokens
        self.tries, self.parallel, self.seed = tries, parallel, seed
        self.backoff, self.timeout = backoff, timeout

    def __call__(self, prompts: list[str]) -> list[Answer | Failure]:
        """Answer each prompt, in the order given; a prompt without an answer has its own failure.

        Reasons: 'server unreachable', 'server timed out', 'rate limited', 'server error', 'bad reply' (all
        after the last try); at once 'key refused' (401, 403), 'request refused' (any other 4xx), 'empty
        answer', 'refused' (a content filter).
        """
        # One event loop and client a call: nothing is left open between calls, nor when the actor dies.
        return asyncio.run(self._all(prompts))

    async def _all(self, prompts: list[str]) -> list[Answer | Failure]:
        slots = asyncio.Semaphore(self.parallel)
        async with openai.AsyncOpenAI(
            base_url=self.url, api_key=_key(), timeout=openai.Timeout(self.timeout, connect=10), max_retries=0
        ) as client:  # its own retries wait 8 s at most: too short for a server that starts again

            async def one(prompt: str) -> Answer | Failure:
                async with slots:
                    return await self._ask(client, prompt)

            return await asyncio.gather(*(one(prompt) for prompt in prompts))

    async def _ask(self, client: openai.AsyncOpenAI, prompt: str) -> Answer | Failure:
        for tried in range(1, self.tries + 1):
            wanted = 0.0
            try:
                reply = await client.chat.completions.create(
                    model=self.model,
                    messages=[{"role": "user", "content": prompt}],
                    max_tokens=self.max_tokens,
                    temperature=0,
                    seed=self.seed,
                )
                if isinstance(reply, ChatCompletion):
                    return _read(reply)
                failure = _failure("bad reply", "not JSON: is there something before the server?")
            except openai.APIStatusError as error:
                failure = _status(error)
                wanted = _retry_after(error.response.headers.get("retry-after"))
                lasting = error.status_code < 500 and error.status_code not in BUSY
                if lasting or wanted > LONGEST_RETRY_AFTER:
                    return failure
            except openai.APITimeoutError:
                failure = _failure("server timed out", f"silent for {self.timeout:g} s, {tried} tries")
            except openai.APIConnectionError as error:
                # Only the cause's name: its text may quote the headers, and the key with them.
                failure = _failure("server unreachable", f"{type(error.__cause__).__name__}, {tried} tries")
            except (openai.APIError, ValueError) as error:  # ValueError: broken JSON
                failure = _failure("bad reply", str(error))
            if tried < self.tries:
                wait = min(self.backoff * 2 ** (tried - 1), LONGEST_BACKOFF)
                # Never earlier than asked; apart, so that many actors' prompts do not come back at once.
                await asyncio.sleep(max(wait, wanted) * random.uniform(1, 1.25))
        return failure


def check_server(url: str, timeout: float = 5.0) -> None:
    """See that an OpenAI-compatible server answers at `url` and takes the key (GET /models).

    Raises:
        UserError: nothing answers within `timeout` seconds, the key is refused, or there is no such API.
    """
    try:
        with openai.OpenAI(base_url=url, api_key=_key(), timeout=timeout, max_retries=0) as client:
            client.models.list()
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        hint = "is OPENAI_API_KEY right?" if os.environ.get("OPENAI_API_KEY") else "set OPENAI_API_KEY"
        raise UserError(f"queries.url: {url} refuses the key (HTTP {error.status_code}): {hint}") from None
    except openai.NotFoundError:
        raise UserError(f"queries.url: {url} has no /models: the URL usually ends in /v1") from None
    except openai.APIStatusError:
        return  # busy or starting: something answers, and the writer waits for it
    except (openai.OpenAIError, ValueError) as error:
        what = type(error.__cause__ or error).__name__
        raise UserError(
            f"queries.url: nothing answers at {url} within {timeout:g} s ({what}): "
            "start the server or name another"
        ) from None


def _key() -> str:
    """The user's key, or a placeholder: a local vLLM server needs none, but the client insists."""
    key = os.environ.get("OPENAI_API_KEY", "").strip() or NO_KEY
    if not (key.isascii() and key.isprintable()):  # the client's own error would quote it
        raise UserError("OPENAI_API_KEY holds characters that cannot stand in a key")
    return key


def _masked(text: str) -> str:
    """Without the key, should the server have repeated it."""
    return text if (key := _key()) == NO_KEY else text.replace(key, "***")


def _failure(reason: str, detail: str) -> Failure:
    """A failure without the key (masked before the cut, which may halve it)."""
    return Failure(reason, " ".join(_masked(detail).split())[:DETAIL])


def _status(error: openai.APIStatusError) -> Failure:
    code = error.status_code
    if code in (401, 403):
        return _failure("key refused", f"HTTP {code}")  # servers quote parts of the key here
    reason = "rate limited" if code == 429 else "server error" if code >= 500 else "request refused"
    return _failure(reason, f"HTTP {code}: {error.message}")


def _read(reply: ChatCompletion) -> Answer | Failure:
    """The first choice. The client checks no types, so nothing is taken for granted."""
    choice = next(iter(reply.choices if isinstance(reply.choices, list) else []), None)
    message = getattr(choice, "message", None)
    text, finish = getattr(message, "content", None), getattr(choice, "finish_reason", None)
    if finish == "content_filter" or getattr(message, "refusal", None):
        return _failure("refused", f"{getattr(message, 'refusal', None) or 'content filter'}")
    cut = finish == "length"  # with no text: a reasoning model that did not come to its answer
    if not cut and not (isinstance(text, str) and text.strip()):
        return _failure("empty answer", f"finish reason {finish}")
    used = reply.usage
    return Answer(
        _masked(text) if isinstance(text, str) else "",
        cut,
        getattr(used, "prompt_tokens", None) or 0,
        getattr(used, "completion_tokens", None) or 0,
    )


def _retry_after(header: str | None) -> float:
    """Seconds that a Retry-After header asks for, in either of its two forms; 0 where it asks for nothing."""
    try:
        return max(0.0, float(header or 0))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(header or "")
        return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    except ValueError:
        return 0.0
