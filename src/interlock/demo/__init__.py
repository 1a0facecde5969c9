"""The demonstration: real flights, models of different quality, and live traffic to release them under."""
