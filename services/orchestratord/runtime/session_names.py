"""What sessions are called on the disks of GPU hosts."""

from hashlib import sha256


def saved_session_name(cluster_id: str, app: str, session_id: str) -> str:
    """64 hexadecimal digits, which tell neither the app nor the id, and are others in another cluster. Empty for tasks
    of no session.

    Nothing that is named here has a line break in it, so the lines tell where each part ends.
    """
    if not session_id:
        return ""
    return sha256("\n".join(("llama-orch saved session", cluster_id, app, session_id)).encode()).hexdigest()
