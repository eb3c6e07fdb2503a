"""Asks several models and shows what each strategy makes of their answers.

Needs a server (`proxy serve`); PROXY_BASE_URL names another address, and MODELS the models, separated by commas.
"""

from __future__ import annotations

import asyncio
import os

from proxy import MultiModelAPI

MODELS = os.environ.get("MODELS", "openai/gpt-6-luna,groq/openai/gpt-oss-20b,anthropic/claude-haiku-5-5").split(",")
QUESTION = "What is the total of this receipt? 2 mugs at $4.50, 1 plate at $3.00. End with: Answer: <amount>"


async def main() -> None:
    async with MultiModelAPI(base_url=os.environ.get("PROXY_BASE_URL", "http://127.0.0.1:8000")) as api:
        vote = await api.generate_ensemble(QUESTION, strategy="voting", models=MODELS)
        print("voting:", vote.votes, "confidence", vote.confidence)
        ranked = await api.generate_ensemble(QUESTION, strategy="ranking", models=MODELS)
        for line in ranked.ranking or []:
            print(f"ranking: {line['quality_score']:.2f} {line['model']}")
        fused = await api.generate_ensemble(QUESTION, strategy="fusion", models=MODELS, judge=MODELS[0])
        print("fusion:", str(fused.merged)[:60])
        checked = await api.generate_ensemble(
            QUESTION, strategy="verification", models=MODELS[:1], validator=MODELS[-1]
        )
        print("verification:", checked.verification and checked.verification["correct"], checked.confidence)


if __name__ == "__main__":
    asyncio.run(main())
