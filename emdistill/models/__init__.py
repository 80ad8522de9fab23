"""Who teaches: load encoders, capture their states, freeze a teacher."""

from emdistill.models.capture import capture as capture
from emdistill.models.capture import check_capture as check_capture
from emdistill.models.encoder import encoder_layers as encoder_layers
from emdistill.models.encoder import encoder_shape as encoder_shape
from emdistill.models.encoder import fingerprint as fingerprint
from emdistill.models.encoder import load_classifier as load_classifier
from emdistill.models.encoder import load_tasks as load_tasks
from emdistill.models.encoder import load_tokenizer as load_tokenizer
from emdistill.models.encoder import same_tokens as same_tokens
from emdistill.models.encoder import save_student as save_student
from emdistill.models.label_names import name_outputs as name_outputs
from emdistill.models.teacher import Teacher as Teacher
from emdistill.models.teacher import check_above_chance as check_above_chance
