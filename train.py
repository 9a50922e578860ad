#!/usr/bin/env python
"""Train one recipe, or a sweep of them.

python train.py                                            captcha, EfficientNet-Lite0, fine-tune: no network needed
python train.py backbone=resnet50 strategy=fixed dataset=folder dataset.root=DIR
python train.py -m strategy=scratch,fixed,finetune seed=0,1,2
python train.py resume=outputs/RUN
"""

import sys

from thaw.cli.train import launch

if __name__ == "__main__":
    sys.exit(launch(sys.argv[1:]))
