"""The front door: one asyncio process between the world and Triton.

    gRPC (grpc_service)  \\                         quotas     turns      triton
    KServe over HTTP      >  core: key -> checks -> quota ->  turn  -> pipeline model
    /v1, jobs            /        callers, checking              (a private socket)

Every way in ends in `core.Door.infer`; every refusal is a kind of `backtal.errors`, told to gRPC
and HTTP by `refusals`, and counted by `outcomes`. Videos go to the `spool`, never through Triton.
"""
