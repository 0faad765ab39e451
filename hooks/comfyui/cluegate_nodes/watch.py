"""Refuses workflows that show or save what no gate has seen, and switches the sampler's previews off.

ComfyUI runs whatever workflow it is given, so nodes alone are a matter of good will. A package that is loaded may stand
before the queue: a node that shows or saves (`OUTPUT_NODE`) has to take all that it is linked to from a node of this package.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

#: The nodes whose outputs may be shown and saved.
GATED = ("CluegateImages", "CluegateLatents", "CluegateVerdict")


def ungated(workflow: Mapping[str, Any], classes: Mapping[str, Any]) -> list[str]:
    """Ids of the nodes that show or save something else than what a node of this package hands on.

    What has no link at all draws or loads by itself, and counts too. Raises for what is no workflow.
    """
    return [
        name
        for name, node in workflow.items()
        if node["class_type"] not in GATED
        and getattr(classes.get(node["class_type"]), "OUTPUT_NODE", False)
        and not _is_fed_by_the_gate(workflow, node)
    ]


def _is_fed_by_the_gate(workflow: Mapping[str, Any], node: Mapping[str, Any]) -> bool:
    # A link is [id of a node, index of its output].
    links = [value for value in node.get("inputs", {}).values() if isinstance(value, list)]
    return bool(links) and all(
        len(link) == 2 and workflow.get(link[0], {}).get("class_type") in GATED for link in links
    )


def watch(execution: Any, latent_preview: Any, classes: Mapping[str, Any]) -> None:
    """Stands before ComfyUI's own check of a workflow. Takes its modules `execution` and `latent_preview`, and the classes of
    all nodes by name."""
    bare = execution.validate_prompt
    if not inspect.iscoroutinefunction(bare):
        raise RuntimeError("expected a ComfyUI of 2025-07 or later, whose `execution.validate_prompt` is a coroutine")
    signature = inspect.signature(bare)

    @functools.wraps(bare)
    async def validate_prompt(*arguments: Any, **named: Any) -> Any:
        workflow = signature.bind(*arguments, **named).arguments["prompt"]
        wrong = ungated(workflow, classes)
        if not wrong:
            return await bare(*arguments, **named)
        message = "cluegate: only what comes out of a `cluegate: gate images` node may be shown or saved"
        told = {"type": "cluegate_ungated", "message": message, "details": f"nodes {', '.join(wrong)}", "extra_info": {}}
        errors = {
            name: {"errors": [told], "dependent_outputs": [name], "class_type": workflow[name]["class_type"]} for name in wrong
        }
        return False, told, [], errors

    execution.validate_prompt = validate_prompt
    # What a sampler shows of its latents on the way, nobody has judged.
    latent_preview.get_previewer = lambda *_args, **_kwargs: None
