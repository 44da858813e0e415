"""Names of transformers that are used here: its own list has pyright read all its models."""

from transformers.configuration_utils import PreTrainedConfig as PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel as PreTrainedModel
from transformers.models.auto.configuration_auto import AutoConfig as AutoConfig
from transformers.models.auto.image_processing_auto import AutoImageProcessor as AutoImageProcessor
from transformers.models.auto.modeling_auto import (
    AutoModelForImageClassification as AutoModelForImageClassification,
)
from transformers.models.auto.modeling_auto import (
    AutoModelForZeroShotImageClassification as AutoModelForZeroShotImageClassification,
)
from transformers.models.auto.tokenization_auto import AutoTokenizer as AutoTokenizer
from transformers.models.clip.configuration_clip import CLIPTextConfig as CLIPTextConfig
from transformers.models.clip.image_processing_clip import CLIPImageProcessor as CLIPImageProcessor
from transformers.models.clip.modeling_clip import (
    CLIPTextModel as CLIPTextModel,
)
from transformers.models.clip.modeling_clip import (
    CLIPVisionModelWithProjection as CLIPVisionModelWithProjection,
)
from transformers.models.clip.tokenization_clip import CLIPTokenizer as CLIPTokenizer
