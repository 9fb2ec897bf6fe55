"""The page that shows a text with each token coloured by its experts."""

from .page import save_token_page
from .routing import TokenLayer, TokenRouting

__all__ = ["TokenLayer", "TokenRouting", "save_token_page"]
