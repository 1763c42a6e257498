"""Generator of the synthetic demo corpus.

- `generator`: the voices, the schedule of clips, and the files;
- `emotion_rules`: acoustic cues of each emotion, from the literature, and their application to the sound;
- `espeak`: speech synthesis with espeak-ng.

`docs/demo_corpus.md` compares the rules with their sources.
"""
