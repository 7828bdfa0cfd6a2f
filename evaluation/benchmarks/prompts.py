"""Subjects and prompts of the random benchmarks, in our own words, for models that know the real world."""

Words = tuple[str, str]  # subject, prompt

STILL: tuple[Words, ...] = (
    ("cat", "a cat dozing on a red sofa"),
    ("owl", "an owl perched on a mossy branch"),
    ("teapot", "a teapot standing on a wooden table"),
    ("sheep", "a sheep lying in tall grass"),
    ("lighthouse", "a lighthouse above a calm sea"),
    ("penguin", "a penguin resting on an ice floe"),
    ("bicycle", "a bicycle leaning against a brick wall"),
    ("elephant", "an elephant standing at a water hole"),
    ("sailing boat", "a sailing boat at anchor in a quiet bay"),
    ("rabbit", "a rabbit sitting among clover"),
    ("tractor", "a tractor parked on a ploughed field"),
    ("parrot", "a parrot sitting on a garden fence"),
    ("lizard", "a lizard basking on a warm rock"),
    ("piano", "a piano standing in an empty hall"),
    ("flamingo", "a flamingo standing in shallow water"),
    ("koala", "a koala asleep in a eucalyptus tree"),
    ("vase", "a vase of tulips on a windowsill"),
    ("camel", "a camel kneeling on a sand dune"),
    ("fire truck", "a fire truck parked in front of a station"),
    ("hedgehog", "a hedgehog curled up on autumn leaves"),
    ("statue", "a statue in the middle of a town square"),
    ("frog", "a frog waiting on a lily pad"),
    ("snowman", "a snowman in a wide white garden"),
    ("donkey", "a donkey standing by a stone wall"),
)
ACROSS: tuple[Words, ...] = (
    ("wolf", "a wolf trotting through deep snow"),
    ("tram", "a tram rolling along a city street"),
    ("dolphin", "a dolphin swimming in clear blue water"),
    ("cyclist", "a cyclist riding along a canal"),
    ("zebra", "a zebra running over a dry plain"),
    ("steam train", "a steam train crossing a stone bridge"),
    ("duckling", "a duckling paddling over a pond"),
    ("truck", "a truck driving through a desert"),
    ("shark", "a shark gliding past a coral reef"),
    ("motorboat", "a motorboat racing over a lake"),
    ("ostrich", "an ostrich running through dry grass"),
    ("bus", "a bus driving along a coast road"),
    ("tiger", "a tiger walking through bamboo"),
    ("crab", "a crab walking along a beach"),
    ("skateboarder", "a skateboarder rolling through a park"),
    ("hawk", "a hawk gliding in front of a mountain"),
    ("kangaroo", "a kangaroo hopping across red sand"),
    ("turtle", "a turtle swimming over sea grass"),
    ("horse cart", "a horse cart rolling through a village"),
    ("butterfly", "a butterfly fluttering over a meadow"),
    ("astronaut", "an astronaut walking on the moon"),
    ("squirrel", "a squirrel dashing across a lawn"),
    ("skier", "a skier crossing a white slope"),
    ("airship", "an airship passing over a harbour"),
)
UP_OR_DOWN: tuple[tuple[str, str, str], ...] = (  # subject, prompt, motion
    ("hot air balloon", "a hot air balloon rising over green hills", "up"),
    ("parachutist", "a parachutist sinking towards a field", "down"),
    ("rocket", "a rocket climbing into a clear sky", "up"),
    ("maple leaf", "a maple leaf falling in a quiet forest", "down"),
    ("jellyfish", "a jellyfish drifting to the surface of the sea", "up"),
    ("feather", "a feather floating to the floor of a bright room", "down"),
    ("soap bubble", "a soap bubble rising in a garden", "up"),
    ("spider", "a spider letting itself down on a thread", "down"),
    ("paper lantern", "a paper lantern rising into the night", "up"),
    ("diver", "a diver sinking into deep water", "down"),
    ("bear", "a bear climbing a tree trunk", "up"),
    ("raindrop", "a raindrop running down a window", "down"),
)
ZIG_ZAG: tuple[Words, ...] = (
    ("bumblebee", "a bumblebee flying from flower to flower"),
    ("hare", "a hare dodging about on a stubble field"),
    ("moth", "a moth circling a garden lamp"),
    ("goldfish", "a goldfish darting about in a glass bowl"),
    ("mouse", "a mouse scurrying over a kitchen floor"),
    ("dragonfly", "a dragonfly flitting over a brook"),
    ("swallow", "a swallow hunting insects in the evening sky"),
    ("puppy", "a puppy romping on a sandy shore"),
    ("gecko", "a gecko scuttling over a white wall"),
    ("snowboarder", "a snowboarder weaving between poles"),
    ("beetle", "a beetle wandering over a stone path"),
    ("rubber ball", "a rubber ball bouncing through an empty room"),
)
# What moves in Jain et al.'s ways, in turn.
JAIN_MOVING: tuple[tuple[str, str, str], ...] = tuple(
    words
    for across, vertical, zig_zag in zip(ACROSS, UP_OR_DOWN, ZIG_ZAG, strict=False)
    for words in ((*across, "left-right"), vertical, (*zig_zag, "zig-zag"))
)
