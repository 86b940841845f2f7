"""LoRAs: their multipliers and files read, what they change, merged and taken out exactly."""
