"""gRPC, set up once for all daemons and clients.

A server is an `RpcServer` of `llorch.rpc.server`; clients use `open_channel`, `call`, `open_stream` and
`DuplexCall` of `llorch.rpc.client`. Where the sharp edges of grpc.aio are taken care of:

    a handler's own CancelledError, exceptions' texts, abort      call_guard
    the cause of a cancellation, and which handlers are running   call_guard
    handlers that are generators or not coroutines                call_guard refuses them at start
    too many calls at once                                        places, few_at_once
    requests of who may not call, and those that do not come      call_guard, awaited_requests
    too many connections and calls of one; silent ones            transport_options
    memory that calls leave behind when they end early            settled
    drain, `finally` blocks before stop, SO_REUSEPORT             server
    health that follows the state                                 health
    keepalive, message sizes, compression                         transport_options
    slow readers                                                  slow_reader
    turns of the loop for nothing                                 wakeups
    reads with a timeout, our own stalls                          incoming
    leaving a stream, call and write deadlines                    client
    tokens and correlation ids without client interceptors        client
"""
