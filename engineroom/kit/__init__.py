"""Processes, the machine, records and files: the base that every other package uses."""

from engineroom.kit.proxies import exempt_loopback

exempt_loopback()  # for the clients inside other libraries, of this process and its children
