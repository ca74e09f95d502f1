import asyncio, gc, pytest
from transport_factories import WAYS
from fetcher.errors import FetchError
@pytest.mark.parametrize("name", ["ftps","tls","ftp"])
async def test_r(name):
    way = WAYS[name]
    loop = asyncio.get_running_loop()
    async with way.partner.stall() as server, way.opened() as transport:
        for n in range(150):
            t = asyncio.create_task(transport.fetch(server.job(1)))
            await asyncio.sleep(n*0.0002)
            t.cancel()
            await asyncio.wait([t])
            gc.collect()
