"""The processes below another one, as far as they run."""

import psutil


def below(parent: psutil.Process) -> list[tuple[psutil.Process, list[str]]]:
    """Children, and theirs, each with its command line; none that has ended.

    A process that ended stays in the list of its parent, as a zombie without a command line, until the parent asks
    for its status. pytest takes over whatever is orphaned (`leaks.adopt_orphans`) and does not ask: it can't tell what
    it took over from what someone who waits for the status has started.
    """
    found = []
    for process in parent.children(recursive=True):
        try:
            found.append((process, process.cmdline()))
        except psutil.NoSuchProcess:  # a zombie's error is one of these
            continue
    return found
