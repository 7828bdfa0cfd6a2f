"""What a network is handed to hold a video's subjects in their boxes: the paper's masks, or the baseline's edit."""

from adaptation.attention_masks import AttentionControl
from adaptation.trailblazer import TrailBlazerControl

Control = AttentionControl | TrailBlazerControl
