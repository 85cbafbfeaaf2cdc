"""Metrics and statistics: functions of neighbors and truth, shared by the measure and compare stages."""
