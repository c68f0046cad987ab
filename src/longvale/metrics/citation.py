"""Citation of the benchmark, shown with the metrics."""

CITATION = """\
@inproceedings{geng2025longvale,
  title     = {{LongVALE}: Vision-Audio-Language-Event Benchmark Towards Time-Aware Omni-Modal Perception of Long
               Videos},
  author    = {Geng, Tiantian and Zhang, Jinrui and Wang, Qingni and Wang, Teng and Duan, Jinming and Zheng, Feng},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year      = {2025}
}
"""
