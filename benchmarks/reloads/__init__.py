"""Reloads under load: does anything fail, is anything lost, how soon does every worker know?"""
