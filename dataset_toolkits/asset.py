"""An animated glTF object: fixed triangles and colours, vertices at any time of any of its clips.

Positions come out in the z-up world: glTF is y-up with the front on +z, and (x, y, z) -> (x, -z, y) puts the
front on -y, where the camera of azimuth 0 stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataset_toolkits.animation import Clip, FloatArray, read_clips
from dataset_toolkits.appearance import Appearance
from dataset_toolkits.geometry import GeometryBuilder, Primitive, Skin, read_skin
from dataset_toolkits.gltf import GltfError, read_glb
from dataset_toolkits.nodes import NodeTree, read_nodes

Y_UP_TO_Z_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])


@dataclass(frozen=True)
class AnimatedAsset:
    """Geometry, colours and clips of one file; `pose` is the only thing that depends on time."""

    tree: NodeTree
    primitives: tuple[Primitive, ...]
    skins: tuple[Skin, ...]
    clips: dict[str, Clip]
    triangles: NDArray[np.int64]  # [F, 3]
    appearance: Appearance

    def pose(self, clip: Clip | None, times: FloatArray) -> NDArray[np.float32]:
        """Vertices [T, V, 3] in the z-up world, in the units of the file, at `times` [T] seconds of `clip`.

        Without a clip the object is at rest.
        """
        channels = clip.channels if clip else ()
        values = {(channel.node, channel.path): channel.sample(times) for channel in channels}
        world = self.tree.world_matrices(values, len(times))
        posed = []
        for primitive in self.primitives:
            points = primitive.morphed(values.get((primitive.node, "weights")), len(times))
            if primitive.skin is None:
                matrices = world[primitive.node]
                posed.append(points @ matrices[:, :3, :3].swapaxes(1, 2) + matrices[:, None, :3, 3])
            else:
                posed.append(_skinned(primitive, self.skins[primitive.skin], points, world))
        return (np.concatenate(posed, axis=1) @ Y_UP_TO_Z_UP.T).astype(np.float32)


def load_asset(path: Path, hide_nodes: Sequence[str] = ()) -> AnimatedAsset:
    """Read an animated GLB, leaving out the meshes of nodes named in `hide_nodes` and of their children.

    Raises:
        GltfError: the file is damaged, needs an unsupported extension, or shows no triangles.
    """
    document = read_glb(path)
    tree = read_nodes(document)
    hidden = tree.with_descendants(set(hide_nodes))
    at_rest = tree.world_matrices({}, 1)
    builder = GeometryBuilder(document)
    for index in tree.shown:
        if "mesh" in tree.nodes[index] and index not in hidden:
            mirrored = np.linalg.det(at_rest[index][0, :3, :3]) < 0
            builder.add_node(index, tree.nodes[index], bool(mirrored))
    if not builder.primitives:
        raise GltfError(f"{path} shows no triangles; check the nodes to hide")
    return AnimatedAsset(
        tree=tree,
        primitives=tuple(builder.primitives),
        skins=tuple(read_skin(document, skin) for skin in document.items("skins")),
        clips=read_clips(document),
        triangles=np.concatenate(builder.triangles),
        appearance=builder.appearance(),
    )


def _skinned(primitive: Primitive, skin: Skin, points: FloatArray, world: dict[int, FloatArray]) -> FloatArray:
    """Linear blend skinning of `points` [T, V, 3].

    A skinned mesh follows its joints alone, its own node has no say (glTF 2.0 section 3.7.3.3).
    """
    joint_matrices = np.stack([world[joint] for joint in skin.joints], axis=1) @ skin.inverse_bind
    result = np.zeros(points.shape)
    for slot in range(primitive.joints.shape[1]):
        weight = primitive.weights[:, slot]
        used = np.flatnonzero(weight)  # most vertices leave most slots empty
        matrices = joint_matrices[:, primitive.joints[used, slot]]
        moved = np.einsum("tvij,tvj->tvi", matrices[..., :3, :3], points[:, used])
        result[:, used] += weight[used, None] * (moved + matrices[..., :3, 3])
    return result
