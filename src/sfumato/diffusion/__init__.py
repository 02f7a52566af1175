"""The mathematics of diffusion: schedules, denoisers, samplers and noise. Knows no network and no file."""
