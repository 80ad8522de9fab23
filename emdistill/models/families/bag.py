"""A bag of word pieces and n-grams (models/bag.py): two tables and means, without layers."""

from emdistill.models.families.family import Family

BAG = Family(
    name="Bag",
    brought=True,
    without={
        "hidden": "it has no layers",
        "attention": "it has no layers",
        "keep": "it has no layers",
        "cut": "it has no layers",
        "fresh": "its size is said in another way, --student bag:128",
    },
)
