"""A VR service: ray-traces a frame for a head pose within a time budget, sharpest where the eye looks.

It renders the whole view coarsely first and then, from the centre outwards, as many sharp tiles as the time
allows: every machine keeps the frame's time, a faster one shows more detail.
"""

from __future__ import annotations

import math
import time
from urllib.parse import parse_qs, urlsplit

import numpy as np
from numpy.typing import NDArray

from examples.demo.jobs.http_service import Answer, BadRequestError, serve

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

WIDTH, HEIGHT = 192, 108
COARSE = 4
TILE_WIDTH, TILE_HEIGHT = 32, 18
FRAME_TIME_S = 0.0032  # for the rendering alone; the rest of the compute time is the request's handling
SHARP_HEADER = "X-Sharp-Share"

# Spheres: centre, radius, colour, how much they mirror.
CENTRES = np.array(
    [[0, 0, 6], [2.2, -0.3, 5], [-2.0, -0.4, 4.6], [0.9, -0.7, 3.4], [-0.8, 1.4, 7]], np.float32
)
RADII = np.array([1.0, 0.7, 0.6, 0.3, 0.8], np.float32)
COLOURS = np.array(
    [[0.9, 0.3, 0.2], [0.2, 0.7, 0.9], [0.3, 0.8, 0.4], [0.95, 0.8, 0.2], [0.7, 0.5, 0.9]], np.float32
)
MIRROR = 0.35
LIGHT = np.array([0.5, 0.8, -0.33], np.float32) / np.float32(math.sqrt(0.5**2 + 0.8**2 + 0.33**2))
FLOOR_Y = -1.0
SKY_LOW, SKY_HIGH = np.array([0.85, 0.9, 1.0], np.float32), np.array([0.25, 0.5, 0.9], np.float32)


def render(yaw: float, pitch: float, time_s: float = FRAME_TIME_S) -> tuple[Bytes, float]:
    """A frame as (height, width, 3), and the share of it that is sharp."""
    deadline_s = time.perf_counter() + time_s
    directions = _directions(yaw, pitch)
    coarse = _trace(directions[COARSE // 2 :: COARSE, COARSE // 2 :: COARSE])
    frame = coarse.repeat(COARSE, axis=0).repeat(COARSE, axis=1)
    done, now_s = 0, time.perf_counter()
    slowest_s = now_s - (deadline_s - time_s)
    for rows, columns in _TILES:
        if now_s + slowest_s > deadline_s:
            break
        frame[rows, columns] = _trace(directions[rows, columns])
        begun_s, now_s = now_s, time.perf_counter()
        slowest_s = max(slowest_s, now_s - begun_s)
        done += 1
    return frame, done / len(_TILES)


def _tiles_from_the_centre() -> list[tuple[slice, slice]]:
    corners = [(y, x) for y in range(0, HEIGHT, TILE_HEIGHT) for x in range(0, WIDTH, TILE_WIDTH)]
    middle_y, middle_x = (HEIGHT - TILE_HEIGHT) / 2, (WIDTH - TILE_WIDTH) / 2
    corners.sort(key=lambda corner: math.hypot(corner[0] - middle_y, corner[1] - middle_x))
    return [(slice(y, y + TILE_HEIGHT), slice(x, x + TILE_WIDTH)) for y, x in corners]


_TILES = _tiles_from_the_centre()


def _rays_of_the_lens() -> Floats:
    y, x = np.mgrid[HEIGHT / 2 - 0.5 : -HEIGHT / 2 : -1, -WIDTH / 2 + 0.5 : WIDTH / 2 : 1]
    rays = np.stack([x, y, np.full_like(x, HEIGHT * 0.9)], axis=-1)
    lens: Floats = (rays / np.linalg.norm(rays, axis=-1, keepdims=True)).astype(np.float32)
    return lens


_LENS = _rays_of_the_lens()


def _directions(yaw: float, pitch: float) -> Floats:
    (cy, sy), (cp, sp) = (math.cos(yaw), math.sin(yaw)), (math.cos(pitch), math.sin(pitch))
    turn = np.array([[cy, 0, -sy], [-sy * sp, cp, -cy * sp], [sy * cp, sp, cy * cp]], np.float32)
    return _LENS @ turn


def _trace(directions: Floats) -> Bytes:
    """The colours that rays from the eye see: one bounce off the mirrors, shadows, a checkered floor."""
    shape = directions.shape
    rays = directions.reshape(-1, 3)
    eye = np.zeros_like(rays)
    seen, points, normals, mirrors = _shade(eye, rays)
    if mirrors.any():
        came = rays[mirrors]
        normal = normals[mirrors]
        bounced = came - 2 * (came * normal).sum(axis=1, keepdims=True) * normal
        reflected, *_ = _shade(points[mirrors] + normal * np.float32(1e-3), bounced)
        seen[mirrors] = (1 - MIRROR) * seen[mirrors] + MIRROR * reflected
    return (np.clip(seen, 0, 1) * 255).astype(np.uint8).reshape(shape)


def _shade(origins: Floats, rays: Floats) -> tuple[Floats, Floats, Floats, NDArray[np.bool_]]:
    """For each ray: its colour, where it ends, the normal there, and whether that is a sphere."""
    sphere, distance = _nearest_sphere(origins, rays)
    with np.errstate(divide="ignore", invalid="ignore"):
        floor = (FLOOR_Y - origins[:, 1]) / rays[:, 1]
    is_floor = (floor > 1e-3) & (floor < distance) & (floor < 40)
    is_sphere = (distance < np.inf) & ~is_floor
    reach = np.where(is_floor, floor, np.where(is_sphere, distance, 0)).astype(np.float32)
    points = origins + rays * reach[:, None]
    normals = np.where(is_floor[:, None], np.array([0, 1, 0], np.float32), 0).astype(np.float32)
    normals[is_sphere] = (points[is_sphere] - CENTRES[sphere[is_sphere]]) / RADII[sphere[is_sphere], None]
    checkers = (np.floor(points[:, 0]) + np.floor(points[:, 2])) % 2
    colour = np.where(is_floor[:, None], (0.25 + 0.5 * checkers)[:, None], COLOURS[sphere])
    light = np.clip(normals @ LIGHT, 0, 1)
    lit = (light > 0) & (is_floor | is_sphere)
    if lit.any():
        towards = np.broadcast_to(LIGHT, (int(lit.sum()), 3))
        _, blocked = _nearest_sphere(points[lit] + normals[lit] * np.float32(1e-3), towards)
        light[lit] = np.where(blocked < np.inf, 0, light[lit])
    shaded = colour * (0.2 + 0.8 * light)[:, None]
    height = np.clip(rays[:, 1] * 1.5 + 0.4, 0, 1)[:, None]
    sky = SKY_LOW * (1 - height) + SKY_HIGH * height
    hit = (is_floor | is_sphere)[:, None]
    return np.where(hit, shaded, sky).astype(np.float32), points, normals, is_sphere


def _nearest_sphere(origins: Floats, rays: Floats) -> tuple[NDArray[np.intp], Floats]:
    """Which sphere each ray meets first, and after what distance; infinity if none."""
    # |o + t r - c|^2 = R^2 in t, with |r| = 1.
    half = rays @ CENTRES.T - (rays * origins).sum(axis=1)[:, None]
    gap = (CENTRES**2).sum(axis=1) - 2 * (origins @ CENTRES.T) + (origins**2).sum(axis=1)[:, None] - RADII**2
    inside = half**2 - gap
    distance = half - np.sqrt(np.maximum(inside, 0))
    distance = np.where((inside > 0) & (distance > 1e-3), distance, np.float32(np.inf))
    nearest = distance.argmin(axis=1)
    return nearest, distance[np.arange(len(rays)), nearest]


def main() -> None:
    """Serve: GET /frame?yaw=0.1&pitch=0, get the pixels as they are."""

    def answer(path: str, _: bytes) -> Answer:
        try:
            pose = {name: float(values[0]) for name, values in parse_qs(urlsplit(path).query).items()}
        except ValueError:
            raise BadRequestError("yaw and pitch must be numbers, in radian") from None
        frame, sharp = render(pose.get("yaw", 0.0), pose.get("pitch", 0.0))
        return Answer(frame.tobytes(), "application/octet-stream", {SHARP_HEADER: f"{sharp:.3f}"})

    render(0, 0, 1.0)  # the first frame would pay for what numpy sets up once
    serve(answer)
