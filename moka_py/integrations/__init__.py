"""Plugs for frameworks that have an interface for caches or metrics, a module for each.

A module imports its framework, so import only the one that is needed. The extras of the package install the frameworks.
"""
