"""BackTAL: weakly-supervised temporal action localization from background clicks."""

__version__ = "0.1.0"
