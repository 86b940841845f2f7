"""The Wan family: one denoise loop over diffusers' modules; architectures differ in their conditions."""
