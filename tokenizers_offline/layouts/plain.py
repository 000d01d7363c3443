"""Models of which neither vocabulary nor layout is public: everything said, an average cost a message, a wide bound."""

from __future__ import annotations

from tokenizers_offline.layouts.base import ModelSpec, Rendered
from tokenizers_offline.layouts.conversation import turns
from tokenizers_offline.layouts.open_models import plain_conversation, text_items
from tokenizers_offline.prompt import ChatPrompt, Prompt


class PlainLayout:
    """`Layout` of text that nothing is added to, and of chats by the last resort."""

    def render(self, prompt: Prompt, model: ModelSpec, *, platform: str = "", template: str = "") -> Rendered:
        if not isinstance(prompt, ChatPrompt):
            return text_items(prompt, model)
        why = "The maker publishes no chat layout; an average cost for each message is added."
        rendered = plain_conversation(prompt, turns(prompt), model, why)
        if platform:
            return rendered
        # Makers of this kind add prompts of their own (`overheads.yaml`), which need a platform to be known.
        return rendered._replace(upper_factor=1.5, upper_extra=rendered.upper_extra + 300)
