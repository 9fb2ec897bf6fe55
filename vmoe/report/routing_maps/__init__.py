"""Maps of a model's routing over images: which expert serves which patch, and which patches each expert likes most."""

from .favourites import favourites_of, keep
from .files import ROUTING_MAPS, read_routing_maps, save_routing_maps
from .page import save_image_page, save_map_pngs
from .part import maps_part
from .routing import Favourites, Grid, ImageRouting, MapLayer

__all__ = [
    "ROUTING_MAPS",
    "Favourites",
    "Grid",
    "ImageRouting",
    "MapLayer",
    "favourites_of",
    "keep",
    "maps_part",
    "read_routing_maps",
    "save_image_page",
    "save_map_pngs",
    "save_routing_maps",
]
