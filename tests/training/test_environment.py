import json

import torch

from foveate.training.environment import environment


def test_the_environment_says_what_a_figure_depends_on() -> None:
    told = environment(torch.device("cpu"))
    assert told["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert told["threads"] == torch.get_num_threads()
    assert told["processor"]
    assert json.dumps(told)
