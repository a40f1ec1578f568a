"""How fast cards read weights, by their data sheets, and what follows for tokens per second.

One token of one run reads every weight once, so decoding is bound by the bandwidth of the card's memory.
"""

import re

GB_PER_S = {
    "RTX 2060": 336.0,
    "RTX 2080 Ti": 616.0,
    "RTX 3050": 224.0,
    "RTX 3060": 360.0,
    "RTX 3060 Ti": 448.0,
    "RTX 3070": 448.0,
    "RTX 3080": 760.0,
    "RTX 3080 Ti": 912.0,
    "RTX 3090": 936.0,
    "RTX 3090 Ti": 1008.0,
    "RTX 4060": 272.0,
    "RTX 4060 Ti": 288.0,
    "RTX 4070": 504.0,
    "RTX 4070 Ti": 504.0,
    "RTX 4080": 717.0,
    "RTX 4090": 1008.0,
    "RTX 5060 Ti": 448.0,
    "RTX 5070": 672.0,
    "RTX 5070 Ti": 896.0,
    "RTX 5080": 960.0,
    "RTX 5090": 1792.0,
    "RTX A2000": 288.0,
    "RTX A4000": 448.0,
    "RTX A5000": 768.0,
    "RTX A6000": 768.0,
    "P40": 347.0,
    "T4": 320.0,
    "L4": 300.0,
    "L40S": 864.0,
    "A100": 1555.0,
    "H100": 3350.0,
    "H200": 4800.0,
}
"""Of the form of each card that is sold most."""

_REACHED = 0.6
"""Of the bandwidth, by llama.cpp with quantized weights."""

_MB_PER_MIB = 1.048576
_MAKER = re.compile(r"^(NVIDIA |GeForce |Tesla )+")
_FORM = re.compile(r"[ -](SXM|PCIe|NVL|HBM|\d+ ?GB).*$")
"""How a card of a data centre is built in, and its memory, which follow its name."""


def plain_name(card: str) -> str:
    """As the table above and people write it."""
    return _FORM.sub("", _MAKER.sub("", card))


def tokens_per_gb_per_s(weights_mib: int) -> float:
    """Tokens per second of one run alone, for each GB/s that the card reads."""
    return 1000 * _REACHED / (max(1, weights_mib) * _MB_PER_MIB)
