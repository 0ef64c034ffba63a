"""The OTP gateway: sends one-time codes, follows their delivery, falls back, verifies them."""

__version__ = "0.1.0"
