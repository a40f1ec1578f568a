from llorch.cli.wrapping import in_lines

REFUSAL = (
    "llorch: No device to run models on.\n"
    "Looked for: NVIDIA GPUs through the driver's library (NVML).\n"
    "Found: the NVIDIA driver's library (NVML) answered: NVML Shared Library Not Found.\n"
    "Plugged in: a card of AMD (0000:02:00.0), which this release can't use.\n"
    "What to do: install the NVIDIA driver (nvidia-smi must list the card);\n"
    "  or run models on the CPU with --cpu;\n"
    '  or try things out on an imaginary card with --simulate-gpu "RTX 3090:24GiB".'
)


def test_what_is_short_stays_one_line() -> None:
    assert (
        in_lines("port 8080 is taken. Use: --http 127.0.0.1:8081") == "port 8080 is taken. Use: --http 127.0.0.1:8081"
    )


def test_what_is_long_is_wrapped_at_words() -> None:
    text = "a word and " * 30
    assert all(len(line) <= 80 for line in in_lines(text).splitlines())
    assert in_lines(text).replace("\n", " ") == text.strip()


def test_a_refusal_has_a_paragraph_for_each_point_and_a_line_for_each_choice() -> None:
    assert in_lines(REFUSAL).splitlines() == [
        "llorch: No device to run models on.",
        "",
        "  Looked for:",
        "    NVIDIA GPUs through the driver's library (NVML).",
        "",
        "  Found:",
        "    the NVIDIA driver's library (NVML) answered: NVML Shared Library Not Found.",
        "",
        "  Plugged in:",
        "    a card of AMD (0000:02:00.0), which this release can't use.",
        "",
        "  What to do:",
        "    install the NVIDIA driver (nvidia-smi must list the card);",
        "    or run models on the CPU with --cpu;",
        '    or try things out on an imaginary card with --simulate-gpu "RTX 3090:24GiB".',
    ]
