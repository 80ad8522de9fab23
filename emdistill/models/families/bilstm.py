"""BiLSTM (models/bilstm.py): layers that read forwards and backwards, without attention."""

from emdistill.models.families.family import Family

BILSTM = Family(
    name="BiLSTM",
    brought=True,
    layers="layers.*",
    without={
        "attention": "it has none",
        "cut": "its layers have neither heads nor feed-forward neurons",
        "fresh": "its size is said in another way, --student bilstm:256",
    },
)
