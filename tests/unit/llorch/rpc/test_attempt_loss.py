from llama_orch.v2 import task_event_pb2
from llorch.rpc.attempt_loss import loss_word


def test_losses_have_a_word_each_that_users_read() -> None:
    words = [loss_word(value) for value in task_event_pb2.AttemptLoss.values()]
    assert words[:3] == [None, "exit", "lease"]
    assert len(set(words)) == len(words)
    assert loss_word(99) == "unknown"
