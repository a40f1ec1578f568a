"""`llorch.Client`: the same API for programs without an event loop."""

from llorch.sdk.async_client import AsyncClient
from llorch.sdk.blocking import Blocking, iterates, streams, waits


class Client(Blocking):
    """`AsyncClient` on a thread of its own; a context manager, or `close()` it. Any thread may call it.

    Arguments, errors and results are those of `AsyncClient`; streams are plain iterators.
    """

    generate = streams(AsyncClient.generate)
    submit = waits(AsyncClient.submit)
    stream = streams(AsyncClient.stream)
    cancel = waits(AsyncClient.cancel)
    task = waits(AsyncClient.task)
    tasks = waits(AsyncClient.tasks)
    embed = waits(AsyncClient.embed)
    rerank = waits(AsyncClient.rerank)
    count_tokens = waits(AsyncClient.count_tokens)
    count_embed_tokens = waits(AsyncClient.count_embed_tokens)
    tokenize = waits(AsyncClient.tokenize)

    session = waits(AsyncClient.session)
    sessions = waits(AsyncClient.sessions)
    delete_session = waits(AsyncClient.delete_session)

    models = waits(AsyncClient.models)
    model = waits(AsyncClient.model)
    availability = waits(AsyncClient.availability)
    register_model = waits(AsyncClient.register_model)
    add_model = waits(AsyncClient.add_model)
    pull_model = iterates(AsyncClient.pull_model)
    delete_model = waits(AsyncClient.delete_model)
    retire_model = waits(AsyncClient.retire_model)
    activate_model = waits(AsyncClient.activate_model)
    verify_model = waits(AsyncClient.verify_model)

    assign = waits(AsyncClient.assign)
    assignments = waits(AsyncClient.assignments)
    unassign = waits(AsyncClient.unassign)
    explain = waits(AsyncClient.explain)
    decisions = waits(AsyncClient.decisions)

    create_app = waits(AsyncClient.create_app)
    apps = waits(AsyncClient.apps)
    app = waits(AsyncClient.app)
    update_app = waits(AsyncClient.update_app)
    delete_app = waits(AsyncClient.delete_app)

    load_model = waits(AsyncClient.load_model)
    unload_model = waits(AsyncClient.unload_model)
    start_worker = waits(AsyncClient.start_worker)
    stop_worker = waits(AsyncClient.stop_worker)
    release_gpu = waits(AsyncClient.release_gpu)
    resume_gpu = waits(AsyncClient.resume_gpu)

    state = waits(AsyncClient.state)
    watch_state = iterates(AsyncClient.watch_state)
    nodes = waits(AsyncClient.nodes)
    node = waits(AsyncClient.node)
    deregister_node = waits(AsyncClient.deregister_node)
    worker_log = iterates(AsyncClient.worker_log)

    pool_health = waits(AsyncClient.pool_health)
    drain_pool = waits(AsyncClient.drain_pool)
    reload_pool = waits(AsyncClient.reload_pool)
    purge_pool = waits(AsyncClient.purge_pool)

    identity = waits(AsyncClient.identity)
    capabilities = waits(AsyncClient.capabilities)
    metrics = waits(AsyncClient.metrics)
    audit = waits(AsyncClient.audit)
