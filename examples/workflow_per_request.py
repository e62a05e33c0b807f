"""A workflow per HTTP request: parse a text, look at it from three sides at once, put it together.

Building a workflow is cheap, so the handler makes one for every request, and nothing is shared
that should not be. Its run data are pydantic models, like everything FastAPI takes and gives; the
exit in which the run ends decides between an answer and a complaint.

Serve it with `uvicorn workflow_per_request:app`. As a program it asks itself, three texts at once.

Prints:
    The cat sat on the mat. The cat was happy!
    200 {'words': 10, 'sentences': 2, 'mood': 'cheerful', 'most_common': ['the', 'cat', 'sat']}
    Rain, rain, go away!
    200 {'words': 4, 'sentences': 1, 'mood': 'gloomy', 'most_common': ['rain', 'go', 'away']}
    ?!
    422 {'detail': 'there is not a word in it'}
    three answers in ... ms
"""

import asyncio
import re
from collections import Counter
from enum import StrEnum, auto
from typing import Literal

import httpx2
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from cano import Branch, Context, Split, Workflow


class Step(StrEnum):
    PARSE = auto()
    ANALYZE = auto()
    AGGREGATE = auto()
    DONE = auto()
    EMPTY = auto()


class Report(BaseModel):
    words: int = 0
    sentences: int = 0
    mood: str = ""
    most_common: list[str] = []


class Question(BaseModel):
    text: str


class Analysis(Question):
    words: list[str] = []
    report: Report = Report()


async def parse(ctx: Context[Analysis]) -> Literal[Step.ANALYZE, Step.EMPTY]:
    ctx.data.words = re.findall(r"\w+", ctx.data.text.lower())
    return Step.ANALYZE if ctx.data.words else Step.EMPTY


async def sentences(ctx: Context[Analysis]) -> int:
    await ctx.sleep(0.05)  # here, and below, stands a call to some service
    return len(re.findall(r"[.!?]+", ctx.data.text))


async def mood(ctx: Context[Analysis]) -> str:
    await ctx.sleep(0.05)
    scores = {"happy": 1, "sun": 1, "rain": -1, "sad": -1}
    score = sum(scores.get(word, 0) for word in ctx.data.words)
    return "cheerful" if score > 0 else "gloomy" if score < 0 else "neutral"


async def most_common(ctx: Context[Analysis]) -> list[str]:
    await ctx.sleep(0.05)
    return [word for word, _ in Counter(ctx.data.words).most_common(3)]


async def aggregate(ctx: Context[Analysis]) -> Literal[Step.DONE]:
    found = {branch.name: branch.value for branch in ctx.split or ()}
    ctx.data.report = Report.model_validate({"words": len(ctx.data.words), **found})
    return Step.DONE


def text_pipeline() -> Workflow[Step, Analysis]:
    split = Split(
        [
            Branch(sentences, name="sentences"),
            Branch(mood, name="mood"),
            Branch(most_common, name="most_common"),
        ],
        then=Step.AGGREGATE,
    )
    return (
        Workflow(Step, data=Analysis, timeout=5.0)
        .register(Step.PARSE, parse)
        .register(Step.ANALYZE, split)
        .register(Step.AGGREGATE, aggregate)
        .exits(Step.DONE, Step.EMPTY)
    )


app = FastAPI()


@app.post("/analyze")
async def analyze(question: Question) -> Report:
    analysis = Analysis(text=question.text)
    end = await text_pipeline().run(Step.PARSE, data=analysis)
    if end is Step.EMPTY:
        raise HTTPException(422, "there is not a word in it")
    return analysis.report


async def main() -> None:
    texts = ["The cat sat on the mat. The cat was happy!", "Rain, rain, go away!", "?!"]
    clock = asyncio.get_running_loop().time
    began = clock()
    inside = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=inside, base_url="http://cano") as client:
        requests = (client.post("/analyze", json={"text": text}) for text in texts)
        responses = await asyncio.gather(*requests)
    took = (clock() - began) * 1000
    for text, response in zip(texts, responses, strict=True):
        print(f"{text}\n  {response.status_code} {response.json()}")
    print(f"three answers in {took:.0f} ms")


if __name__ == "__main__":
    asyncio.run(main())
