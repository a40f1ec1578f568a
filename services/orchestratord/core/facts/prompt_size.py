"""About how many tokens a prompt has, by the length of its text. What the worker counts corrects such guesses."""

_CHARACTERS_PER_TOKEN = 4
_TOKENS_PER_MESSAGE = 4


def guess_prompt_tokens(characters: int, messages: int) -> int:
    return max(1, characters // _CHARACTERS_PER_TOKEN + _TOKENS_PER_MESSAGE * messages)
