"""The studio: a page in the browser on which one image is attacked, step by step.

Only ``page`` imports gradio. ``choices`` makes a recipe of what a person has chosen, ``networks``
holds what is loaded, ``readings`` asks it, ``running`` attacks, ``folder`` keeps what is needed to
do it again, ``pictures`` and ``panels`` draw.
"""
