"""The stage `report`: one HTML file."""
