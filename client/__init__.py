"""A client of 9P2000.L file servers: asyncio inside, with a plain synchronous face."""
