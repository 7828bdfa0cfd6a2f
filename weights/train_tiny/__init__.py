"""How the embedded checkpoint was made. In the order in which data passes:

`world` draws scenes of moving shapes with their captions; `tokenizer` learns the captions' vocabulary; `vae` is trained
on single frames, `unet` on latents of videos, with `common` for both and `architecture` for the networks' sizes;
`export` writes the folder of Zeroscope's form; `detect` finds a subject by its colour, and `measure` says how well
the checkpoint draws what it is told. `judge` is a network that names what a video of the world shows; how far videos
lie from the world's in its features says how natural they are.

May import weights, and what weights may.
"""
