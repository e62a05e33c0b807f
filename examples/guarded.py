"""Policies around any async function, outside of any workflow.

A weather service that stumbles now and then, and a printer that takes one job at a time. Policies
are put around functions as decorators, in `async with`, or several at once with `guarded`; what
types the functions have is what they keep.

Prints:
    Oslo: attempt 1, attempt 2, 3 degrees
    slow: attempt 1 in slow took longer than 0.05 s
    printing a, done a, printing b, done b
    one printer for everybody: True
"""

import asyncio

from cano import AttemptTimeoutError, Bulkhead, Retry, Timeout, guarded

said: list[str] = []


@guarded(Retry.fixed(3, 0.01, on=ConnectionError), Timeout(1))
async def degrees(city: str, *, unit: str = "degrees") -> str:
    """Each attempt has a second, and there are three of them."""
    said.append(f"attempt {len(said) + 1}")
    if len(said) < 2:
        raise ConnectionError(f"no line to {city}")
    return f"{3} {unit}"


@Timeout(0.05)
async def slow() -> None:
    await asyncio.sleep(60)


@Bulkhead.shared("printer", 1)
async def print_job(name: str) -> None:
    said.append(f"printing {name}")
    await asyncio.sleep(0.01)
    said.append(f"done {name}")


def say() -> str:
    """What was said since the last time."""
    line = ", ".join(said)
    said.clear()
    return line


async def main() -> None:
    answer = await degrees("Oslo")
    print(f"Oslo: {say()}, {answer}")
    try:
        await slow()
    except AttemptTimeoutError as error:
        print(f"slow: {error}")
    await asyncio.gather(print_job("a"), print_job("b"))
    print(say())
    async with Bulkhead.shared("printer", 1) as printer:  # the same one, by its name
        print("one printer for everybody:", printer is Bulkhead.shared("printer", 1))


if __name__ == "__main__":
    asyncio.run(main())
