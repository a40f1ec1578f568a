"""A query with one document as a model that ranks was trained to read them."""

from worker_orcd.engines.llama_cpp.masking import Masking, Part
from worker_orcd.engines.llama_cpp.model import Model

_QUERY, _DOCUMENT = "{query}", "{document}"


class RankPrompt:
    """By the model's own template for it, which is a text with two places, or else as BERT's relatives read pairs:
    both texts, with the tokens around each that the vocabulary wants.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._template = model.rank_template
        self._masking = Masking(model.special_texts)
        end = [model.eos_id if model.eos_id >= 0 else model.separator_id] if model.adds_eos else []
        self._begin = [model.bos_id] if model.adds_bos else []
        self._between = end + ([model.separator_id] if model.adds_separator else [])
        self._end = end

    def tokens(self, query: str, document: str) -> list[int]:
        if self._template:
            return self._model.tokenize_parts(self._filled(query, document))
        return [*self._begin, *self._plain(query), *self._between, *self._plain(document), *self._end]

    def _filled(self, query: str, document: str) -> list[Part]:
        """Control tokens are those of the template; one that a text spells out stays text."""
        texts = {_QUERY: self._masking.mask(query), _DOCUMENT: self._masking.mask(document)}
        rendered = "".join(texts.get(piece, piece) for piece in _pieces(self._template))
        return list(self._masking.parts(rendered))

    def _plain(self, text: str) -> list[int]:
        return self._model.tokenize(text, parse_special=False)


def _pieces(template: str) -> list[str]:
    """The template's own text and its two places, in turn."""
    pieces = [template]
    for place in (_QUERY, _DOCUMENT):
        pieces = [part for piece in pieces for part in _split(piece, place)]
    return pieces


def _split(text: str, place: str) -> list[str]:
    first, *others = text.split(place)
    return [first, *(part for other in others for part in (place, other))]
