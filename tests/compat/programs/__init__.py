"""Programs that stand between clients, Tollgate and providers."""


async def open_program(stack, row, *, provider, echo_url):
    raise NotImplementedError
