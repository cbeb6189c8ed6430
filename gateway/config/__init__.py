"""``site.yaml``: what a site is, read, checked as a whole, and handed on as types of the ports."""

from __future__ import annotations

from gateway.config.load import load
from gateway.config.relaxed import relaxations
from gateway.config.settings import SiteConfig, StoreSettings

__all__ = ["SiteConfig", "StoreSettings", "load", "relaxations"]
